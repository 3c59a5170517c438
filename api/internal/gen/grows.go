package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/descriptorpb"
)

// grows fails if something in the schema stored at path is missing from set or
// has changed there. A missing file stands for the very first run.
func grows(path string, set *descriptorpb.FileDescriptorSet) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var old descriptorpb.FileDescriptorSet
	if err := prototext.Unmarshal(text, &old); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return compare(&old, set)
}

// compare names everything of old that now lacks or has changed.
func compare(old, now *descriptorpb.FileDescriptorSet) error {
	before, after := facts(old), facts(now)
	var names []string
	for name := range before {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		switch got, ok := after[name]; {
		case !ok:
			errs = append(errs, fmt.Errorf("%s was removed or renumbered; version 1 only grows", name))
		case got != before[name]:
			errs = append(errs, fmt.Errorf("%s was %q and is %q; version 1 only grows", name, before[name], got))
		}
	}
	return errors.Join(errs...)
}

// facts says in one line each what others rely on: for a field, under its
// message and number, its name, type and cardinality.
func facts(set *descriptorpb.FileDescriptorSet) map[string]string {
	all := map[string]string{}
	for _, f := range set.File {
		pkg := f.GetPackage()
		for _, m := range f.MessageType {
			messageFacts(all, pkg+"."+m.GetName(), m)
		}
		for _, e := range f.EnumType {
			enumFacts(all, pkg+"."+e.GetName(), e)
		}
		for _, s := range f.Service {
			for _, m := range s.Method {
				all[fmt.Sprintf("method %s.%s/%s", pkg, s.GetName(), m.GetName())] = fmt.Sprintf(
					"%s (stream %v) returns %s (stream %v)", m.GetInputType(), m.GetClientStreaming(),
					m.GetOutputType(), m.GetServerStreaming())
			}
		}
	}
	return all
}

func messageFacts(all map[string]string, name string, m *descriptorpb.DescriptorProto) {
	all["message "+name] = "message"
	for _, f := range m.Field {
		oneof := ""
		if f.OneofIndex != nil {
			oneof = " in " + m.OneofDecl[f.GetOneofIndex()].GetName()
		}
		all[fmt.Sprintf("field %s %d", name, f.GetNumber())] = fmt.Sprintf("%s %s %s %s%s",
			f.GetName(), f.GetType(), f.GetTypeName(), f.GetLabel(), oneof)
	}
	for _, n := range m.NestedType {
		messageFacts(all, name+"."+n.GetName(), n)
	}
	for _, e := range m.EnumType {
		enumFacts(all, name+"."+e.GetName(), e)
	}
}

func enumFacts(all map[string]string, name string, e *descriptorpb.EnumDescriptorProto) {
	for _, v := range e.Value {
		all[fmt.Sprintf("value %s %d", name, v.GetNumber())] = v.GetName()
	}
}
