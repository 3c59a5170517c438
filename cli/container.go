package cli

import "github.com/spf13/cobra"

// containerCmd is Docker's other way to name the verbs about containers.
func (a *app) containerCmd() *cobra.Command {
	return group("container", "The verbs about containers, by their long names",
		a.runCmd(), a.createCmd(), a.startCmd(), a.attachCmd(), a.execCmd(), a.stopCmd(), a.restartCmd(), a.pauseCmd(),
		a.unpauseCmd(), a.killCmd(), a.rmCmd(), a.renameCmd(), a.updateCmd(), renamed(a.psCmd(), "ls", "list", "ps"),
		a.logsCmd(), a.waitCmd(), a.topCmd(), a.statsCmd(), a.cpCmd(), a.diffCmd(), a.exportCmd(), a.portCmd(),
		a.inspectOf("container"))
}

// imageCmd is the same for images.
func (a *app) imageCmd() *cobra.Command {
	return group("image", "The verbs about images, by their long names",
		a.loadCmd(), renamed(a.imagesCmd(), "ls", "list"), a.tagCmd(), renamed(a.rmiCmd(), "rm", "remove"), a.inspectOf("image"))
}
