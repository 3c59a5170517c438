package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/template"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// column is a column of a table: what stands above it, and the field of a row
// that it shows.
type column struct{ header, field string }

// row is a line of a table: its fields by the names that templates use. A key that
// begins with labelMark is a label, which only Label tells.
type row map[string]string

// labelMark is in no name that a template can use.
const labelMark = "label "

// Label is the value of one label, as templates of Docker's users ask for it.
func (r row) Label(name string) string { return r[labelMark+name] }

// MarshalJSON leaves the single labels out: Labels has them all.
func (r row) MarshalJSON() ([]byte, error) {
	fields := make(map[string]string, len(r))
	for k, v := range r {
		if !strings.HasPrefix(k, labelMark) {
			fields[k] = v
		}
	}
	line, err := jsonLine(fields)
	return []byte(line), err
}

// heading is the line above a table that a template makes: headers by field.
type heading map[string]string

// Label is the header of a label: the last part of its name.
func (h heading) Label(name string) string {
	return strings.NewReplacer("-", " ", "_", " ").Replace(name[strings.LastIndexByte(name, '.')+1:])
}

// listing is a table as it is asked for. Its columns are Docker's, in Docker's order.
type listing struct {
	columns []column
	more    []column // that only templates show
	id      string   // the field that -q shows

	quiet   bool
	noTrunc bool
	format  string
}

// register adds the flags that all listings have.
func (l *listing) register(c *cobra.Command) {
	c.Flags().BoolVarP(&l.quiet, "quiet", "q", false, "only ids")
	c.Flags().BoolVar(&l.noTrunc, "no-trunc", false, "do not cut anything off")
	c.Flags().StringVar(&l.format, "format", "", "table, json, or a Go template: '{{.ID}}', 'table {{.ID}}\\t{{.Names}}'")
}

// id of a row is short unless it is to be whole.
func (l *listing) idOf(id string) string {
	if l.noTrunc {
		return id
	}
	return short(id)
}

// write shows the rows.
func (l *listing) write(w io.Writer, rows []row) error {
	switch {
	case l.quiet && l.format == "":
		for _, r := range rows {
			fmt.Fprintln(w, r[l.id])
		}
		return nil
	case l.format == "" || l.format == "table":
		return l.table(w, rows)
	case l.format == "json":
		for _, r := range rows {
			line, err := jsonLine(r)
			if err != nil {
				return err
			}
			fmt.Fprintln(w, line)
		}
		return nil
	}
	return l.template(w, rows)
}

func (l *listing) table(w io.Writer, rows []row) error {
	var cells [][]string
	var headers []string
	for _, c := range l.columns {
		headers = append(headers, c.header)
	}
	cells = append(cells, headers)
	for _, r := range rows {
		var line []string
		for _, c := range l.columns {
			line = append(line, r[c.field])
		}
		cells = append(cells, line)
	}
	return align(w, cells)
}

// align writes cells in columns with three spaces between them; the last column
// is not padded.
func align(w io.Writer, cells [][]string) error {
	var widths []int
	for _, line := range cells {
		for i, cell := range line {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for _, line := range cells {
		for i, cell := range line {
			out.WriteString(cell)
			if i < len(line)-1 {
				out.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
			}
		}
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// template shows the rows as a template says: with "table" before it the fields
// stand in columns under their headers.
func (l *listing) template(w io.Writer, rows []row) error {
	text, asTable := strings.CutPrefix(l.format, "table ")
	t, err := parseTemplate(text)
	if err != nil {
		return err
	}
	t.Option("missingkey=error") // a row is a map, and has all its fields
	var lines []any
	if asTable {
		headers := heading{}
		for _, c := range append(l.columns, l.more...) {
			headers[c.field] = c.header
		}
		lines = append(lines, headers)
	}
	for _, r := range rows {
		lines = append(lines, r)
	}
	var cells [][]string
	for _, r := range lines {
		var line strings.Builder
		if err := t.Execute(&line, r); err != nil {
			return templateError(err)
		}
		if !asTable {
			fmt.Fprintln(w, line.String())
			continue
		}
		cells = append(cells, strings.Split(line.String(), "\t"))
	}
	return align(w, cells)
}

// parseTemplate reads a template with the functions that Docker's have. \t and \n
// may be written as such.
func parseTemplate(text string) (*template.Template, error) {
	t := template.New("format").Funcs(template.FuncMap{
		"json":    jsonLine,
		"join":    strings.Join,
		"split":   strings.Split,
		"lower":   strings.ToLower,
		"upper":   strings.ToUpper,
		"title":   title,
		"println": fmt.Sprintln,
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return string([]rune(s)[:min(n, utf8.RuneCountInString(s))]) },
	})
	t, err := t.Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return nil, templateError(err)
	}
	return t, nil
}

// title has each word begin in upper case.
func title(s string) string {
	before := ' '
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(before) {
			before = r
			return unicode.ToTitle(r)
		}
		before = r
		return r
	}, s)
}

func templateError(err error) error {
	return fmt.Errorf("format: %s", strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: "), "format:"))
}

// writeJSON shows a value as Docker's inspect does.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	return e.Encode(v)
}

// jsonLine is a value as JSON in one line. What browsers mistake for markup is left
// as it is: nobody shows it to one.
func jsonLine(v any) (string, error) {
	var line strings.Builder
	e := json.NewEncoder(&line)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(line.String(), "\n"), err
}

// writeFormat shows one value as JSON, or as a template says.
func writeFormat(w io.Writer, format string, v any) error {
	if format == "json" {
		line, err := jsonLine(v)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, line)
		return err
	}
	t, err := parseTemplate(format)
	if err != nil {
		return err
	}
	var out strings.Builder
	if err := t.Execute(&out, v); err != nil {
		return templateError(err)
	}
	_, err = fmt.Fprintln(w, out.String())
	return err
}

// badFilter says what is wrong with a filter.
func badFilter(filter, why string) error { return fmt.Errorf("filter %q: %s", filter, why) }
