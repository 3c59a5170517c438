package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const schemaFile = "api/schema.txtpb"

// sources lists the protocol's files, relative to api/, in the order in which
// they are compiled.
func sources() []string {
	return []string{
		"driver/v1/common.proto",
		"driver/v1/graph.proto",
		"driver/v1/network.proto",
		"driver/v1/exec.proto",
		"driver/v1/image.proto",
	}
}

// run generates everything below root, or only compares it.
func run(root string, check bool) error {
	set, err := compile(filepath.Join(root, "api"))
	if err != nil {
		return err
	}
	if err := grows(filepath.Join(root, schemaFile), set); err != nil {
		return err
	}
	files, err := generate(root, set)
	if err != nil {
		return err
	}
	var stale []error
	for _, f := range files {
		if err := put(filepath.Join(root, f.name), f.content, check); err != nil {
			stale = append(stale, err)
		}
	}
	return errors.Join(stale...)
}

// file is one generated file; its name is relative to the module's root.
type file struct {
	name    string
	content []byte
}

// put writes content to path, or with check compares it with what is there.
func put(path string, content []byte, check bool) error {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, content) {
		return nil
	}
	if check {
		return fmt.Errorf("%s is stale: run `go run ./api/internal/gen`", path)
	}
	return os.WriteFile(path, content, 0o644)
}

// compile compiles the protocol's files and what they import, imports first.
func compile(api string) (*descriptorpb.FileDescriptorSet, error) {
	c := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{api},
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := c.Compile(context.Background(), sources()...)
	if err != nil {
		return nil, fmt.Errorf("compile %s: %w", api, err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	seen := map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range compiled {
		add(f)
	}
	return set, nil
}

// generate makes all derived files in memory.
func generate(root string, set *descriptorpb.FileDescriptorSet) ([]file, error) {
	schema, err := schemaText(set)
	if err != nil {
		return nil, err
	}
	files := []file{{schemaFile, schema}}
	python, err := pythonModule(set)
	if err != nil {
		return nil, err
	}
	files = append(files, python)
	for _, tool := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		made, err := runPlugin(root, tool, set)
		if err != nil {
			return nil, err
		}
		files = append(files, made...)
	}
	return files, nil
}

// runPlugin runs one of the protoc plugins pinned by go.mod's tool lines.
func runPlugin(root, tool string, set *descriptorpb.FileDescriptorSet) ([]file, error) {
	in, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: sources(),
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      set.File,
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", tool)
	cmd.Dir, cmd.Stdin, cmd.Stderr = root, bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", tool, err)
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, fmt.Errorf("answer of %s: %w", tool, err)
	}
	if response.Error != nil {
		return nil, fmt.Errorf("%s: %s", tool, response.GetError())
	}
	var files []file
	for _, f := range response.File {
		files = append(files, file{filepath.Join("api", f.GetName()), []byte(f.GetContent())})
	}
	return files, nil
}

// stripped is set without comments and positions, and without the imported
// files that are not ours.
func stripped(set *descriptorpb.FileDescriptorSet) *descriptorpb.FileDescriptorSet {
	ours := map[string]bool{}
	for _, name := range sources() {
		ours[name] = true
	}
	result := &descriptorpb.FileDescriptorSet{}
	for _, f := range set.File {
		if ours[f.GetName()] {
			f = proto.CloneOf(f)
			f.SourceCodeInfo = nil
			result.File = append(result.File, f)
		}
	}
	return result
}

// schemaText is the schema as text, the same bytes at every run: prototext
// alone varies its spaces on purpose.
func schemaText(set *descriptorpb.FileDescriptorSet) ([]byte, error) {
	text, err := prototext.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(stripped(set))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("# The protocol's descriptor, written by api/internal/gen. The next run\n" +
		"# compares with it: version 1 only grows.\n" +
		"# proto-message: google.protobuf.FileDescriptorSet\n")
	for line := range bytes.Lines(text) {
		rest := bytes.TrimLeft(line, " ")
		out.Write(line[:len(line)-len(rest)])
		out.Write(bytes.Replace(rest, []byte(":  "), []byte(": "), 1))
	}
	return out.Bytes(), nil
}
