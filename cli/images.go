package cli

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/internal/query"
)

func (a *app) imagesCmd() *cobra.Command {
	var all, digests bool
	var filters []string
	l := listing{
		id:      "ID",
		columns: []column{{"REPOSITORY", "Repository"}, {"TAG", "Tag"}, {"IMAGE ID", "ID"}, {"CREATED", "CreatedSince"}, {"SIZE", "Size"}},
		more:    []column{{"DIGEST", "Digest"}, {"CREATED AT", "CreatedAt"}, {"CONTAINERS", "Containers"}},
	}
	c := &cobra.Command{
		Use: "images [flags] [NAME[:TAG]]", Short: "List images", Args: rangeArgs(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			keep, err := imageFilter(args, filters)
			if err != nil {
				return &usageError{err, c.CommandPath()}
			}
			if digests {
				l.columns = append(l.columns[:2:2], append([]column{{"DIGEST", "Digest"}}, l.columns[2:]...)...)
			}
			var out query.Images
			if err := a.query(c.Context(), query.ImageList, nil, &out); err != nil {
				return err
			}
			var rows []row
			now := time.Now()
			for i := range out.Images {
				rows = append(rows, l.image(&out.Images[i], keep, now)...)
			}
			if l.quiet {
				rows = once(rows, l.id)
			}
			return l.write(a.Stdout, rows)
		},
	}
	l.register(c)
	c.Flags().BoolVarP(&all, "all", "a", false, "accepted: there are no hidden images")
	c.Flags().BoolVar(&digests, "digests", false, "show the manifests' digests")
	listVarP(c.Flags(), &filters, "filter", "f", "only some: dangling=true, reference=NAME[:TAG]")
	return c
}

// image is an image as rows, one for each name that keep lets through.
func (l *listing) image(q *query.Image, keep func(repository, tag string) bool, now time.Time) []row {
	names := q.Names
	if len(names) == 0 {
		names = []string{""}
	}
	id := string(q.ID)
	if !l.noTrunc {
		id = short(id)
	}
	var rows []row
	for _, name := range names {
		repository, tag := "<none>", "<none>"
		if name != "" {
			repository, tag = splitTag(name)
		}
		if !keep(repository, tag) {
			continue
		}
		rows = append(rows, row{
			"ID": id, "Repository": repository, "Tag": tag, "Digest": q.Manifest,
			"CreatedSince": ago(q.Created, now), "CreatedAt": q.Created.Local().Format("2006-01-02 15:04:05 -0700 MST"),
			"Size": humanSize(q.Unpacked), "Containers": strconv.Itoa(q.Containers),
		})
	}
	return rows
}

// imageFilter reads which images are wanted.
func imageFilter(args, filters []string) (func(repository, tag string) bool, error) {
	var names []string
	names = append(names, args...)
	dangling := ""
	for _, f := range filters {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "dangling":
			b, err := strconv.ParseBool(value)
			if err != nil {
				return nil, badFilter(f, "want true or false")
			}
			dangling = strconv.FormatBool(b)
		case "reference":
			if _, err := path.Match(value, ""); err != nil {
				return nil, badFilter(f, "want a name, or a pattern with * ? and []")
			}
			names = append(names, value)
		default:
			return nil, badFilter(f, "it is not supported yet")
		}
	}
	return func(repository, tag string) bool {
		if dangling != "" && dangling != strconv.FormatBool(tag == "<none>") {
			return false
		}
		for _, n := range names {
			if nameFits(n, repository) || nameFits(n, repository+":"+tag) {
				return true
			}
		}
		return len(names) == 0
	}, nil
}

// nameFits holds a name against a pattern of a path's kind. The name in full is
// the same name.
func nameFits(pattern, name string) bool {
	fits, _ := path.Match(pattern, name) // a bad pattern fits nothing
	return fits || pattern == defaultDomain+"/"+name || pattern == defaultDomain+"/"+officialRepo+name
}

// once keeps the first row of each id.
func once(rows []row, field string) []row {
	seen := make(map[string]bool)
	kept := rows[:0]
	for _, r := range rows {
		if !seen[r[field]] {
			kept = append(kept, r)
		}
		seen[r[field]] = true
	}
	return kept
}
