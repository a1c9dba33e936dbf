package webapp

import (
	"regexp"
	"strings"
	"testing"
)

var (
	imports = regexp.MustCompile(`(?m)^import \{([^}]*)\} from "\./([^"]+)"`)
	exports = regexp.MustCompile(`(?m)^export (?:\{([^}]*)\}|(?:async )?(?:const|let|function\*?|class) (\w+))`)
)

// A browser runs nothing of a module whose import is missing, and says so in
// its console only: the whole page of pairs was dead that way once.
func TestModulesExportWhatOthersImport(t *testing.T) {
	t.Parallel()
	found := 0
	for name, module := range assets {
		for _, i := range imports.FindAllSubmatch(module.content, -1) {
			exported := map[string]bool{}
			for _, e := range exports.FindAllSubmatch(assets[string(i[2])].content, -1) {
				for _, word := range names(string(e[1]) + "," + string(e[2])) {
					exported[word] = true
				}
			}
			for _, word := range names(string(i[1])) {
				found++
				if !exported[word] {
					t.Errorf("%s imports %s, which %s does not export", name, word, i[2])
				}
			}
		}
	}
	if found == 0 {
		t.Error("no import was found")
	}
}

func names(list string) (all []string) {
	for word := range strings.SplitSeq(list, ",") {
		if word = strings.TrimSpace(word); word != "" {
			all = append(all, word)
		}
	}
	return all
}
