// Package weak holds the switches by which tests turn single protections off.
//
// A protection that nobody has seen fail is a guess. For each class of known
// escapes there is a test that tries the attack twice: as everybody runs it,
// where it must fail, and with just the one protection off, where it must
// succeed. The switches exist under the build tag "weakened" only; every other
// build sees a constant, and the compiler drops the branch.
package weak

// Protection is one that can be turned off.
type Protection string

// The protections that can be turned off.
const (
	// Seal: the shim runs from a sealed copy of its file.
	Seal Protection = "seal"
	// PathSocket: sockets of gates and shims are paths in directories of ours.
	PathSocket Protection = "path-socket"
	// NoInheritable: capabilities added to an exec are not inheritable.
	NoInheritable Protection = "no-inheritable"
	// IDRange: ids of users are no larger than what all tools understand.
	IDRange Protection = "id-range"
	// CopyUpInRoot: what a tmpfs is filled with is found below the image's root.
	CopyUpInRoot Protection = "copy-up-in-root"
	// UserFiles: files of users are read below the root, regular and bounded.
	UserFiles Protection = "user-files"
	// CopyInside: files are copied from within the container's mount namespace.
	CopyInside Protection = "copy-inside"
	// OwnCode: within a container nothing of it is run or loaded to copy files.
	OwnCode Protection = "own-code"
)
