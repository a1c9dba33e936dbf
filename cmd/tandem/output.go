package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/seed-6230208e/tandem/sessionstore"
)

// table is rows of cells; the first row may be a heading.
type table [][]string

func jsonFlag(c *cobra.Command, value *bool) {
	c.Flags().BoolVar(value, "json", false, "print JSON, for programs")
}

// show prints v as JSON, or t for people.
func (a *app) show(asJSON bool, v any, t table) error {
	if asJSON {
		encoder := json.NewEncoder(a.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, row := range t {
		for i, text := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell(text))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// cell makes text from clients, such as a User-Agent, harmless to a terminal
// and short enough for a table.
func cell(text string) string {
	const most = 120
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, text)
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	if text == "" {
		return "-"
	}
	return text
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}

// userCell is the user's name, or the ID of one that has none.
func userCell(i sessionstore.Info) string {
	if i.UserName != "" {
		return i.UserName
	}
	return i.UserID
}
