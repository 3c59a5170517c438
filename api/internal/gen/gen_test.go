package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const moduleRoot = "../../.."

// What is committed is what the .proto files give now.
func TestGeneratedIsFresh(t *testing.T) {
	if err := run(moduleRoot, true); err != nil {
		t.Error(err)
	}
}

// copyModule copies what the generator reads, so that a test may spoil it.
func copyModule(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for _, name := range append([]string{schemaFile, "go.mod", "go.sum"}, prefixed("api/", sources())...) {
		raw, err := os.ReadFile(filepath.Join(moduleRoot, name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func prefixed(prefix string, names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, prefix+n)
	}
	return all
}

// spoil replaces a text in a file of the copy.
func spoil(t *testing.T, root, name, old, new string) {
	t.Helper()
	path := filepath.Join(root, name)
	raw, err := os.ReadFile(path)
	if err != nil || strings.Count(string(raw), old) != 1 {
		t.Fatalf("%s does not hold %q once: %v", name, old, err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), old, new, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestStaleIsFound(t *testing.T) {
	root := copyModule(t)
	spoil(t, root, "api/driver/v1/graph.proto", "int64 size = 2;\n}", "int64 size = 2;\n  string further = 3;\n}")
	err := run(root, true)
	if err == nil || !strings.Contains(err.Error(), "schema.txtpb is stale") {
		t.Errorf("a field was added and nothing generated: %v", err)
	}
}

func TestOnlyGrows(t *testing.T) {
	const graph = "api/driver/v1/graph.proto"
	for what, c := range map[string]struct{ old, new, says string }{
		"a field removed":      {"  string media_type = 6;\n", "", "ApplyLayerRequest 6 was removed"},
		"a field renumbered":   {"string media_type = 6;", "string media_type = 7;", "ApplyLayerRequest 6 was removed or renumbered"},
		"a field renamed":      {"string media_type = 6;", "string kind = 6;", `was "media_type`},
		"a type changed":       {"string media_type = 6;", "bytes media_type = 6;", "TYPE_BYTES"},
		"a field now repeated": {"string media_type = 6;", "repeated string media_type = 6;", "LABEL_REPEATED"},
		"a method removed":     {"  rpc RemoveLayer(RemoveLayerRequest) returns (RemoveLayerResponse);\n", "", "GraphDriver/RemoveLayer was removed"},
		"a stream undone":      {"returns (stream DiffResponse)", "returns (DiffResponse)", "stream false"},
	} {
		t.Run(what, func(t *testing.T) {
			root := copyModule(t)
			spoil(t, root, graph, c.old, c.new)
			if err := run(root, false); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a word of %q", err, c.says)
			}
		})
	}
}

func TestGrowthIsFine(t *testing.T) {
	root := copyModule(t)
	spoil(t, root, "api/driver/v1/graph.proto", "string media_type = 6;", "string media_type = 6;\n  bool further = 7;")
	set, err := compile(filepath.Join(root, "api"))
	if err != nil {
		t.Fatal(err)
	}
	if err := grows(filepath.Join(root, schemaFile), set); err != nil {
		t.Error(err)
	}
}

// Values of enumerations and nested messages are facts, too, although the
// protocol has none yet.
func TestFactsOfEnumsAndNested(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Package: proto.String("p"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:       proto.String("M"),
			NestedType: []*descriptorpb.DescriptorProto{{Name: proto.String("N")}},
			EnumType:   []*descriptorpb.EnumDescriptorProto{{Name: proto.String("E"), Value: []*descriptorpb.EnumValueDescriptorProto{{Name: proto.String("V"), Number: proto.Int32(3)}}}},
		}},
	}}}
	all := facts(set)
	if all["message p.M.N"] == "" || all["value p.M.E 3"] != "V" {
		t.Errorf("%v", all)
	}
}
