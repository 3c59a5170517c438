package main

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const pythonFile = "examples/gantry-net-island/driver_v1.py"

// pythonModule is the whole protocol as one Python module for python3-protobuf
// 3.20 and later: descriptors in serialized form, classes made of them when
// the module is loaded, as the modules made by protoc do it.
func pythonModule(set *descriptorpb.FileDescriptorSet) (file, error) {
	var out bytes.Buffer
	out.WriteString(`"""The driver protocol, version 1. Written by api/internal/gen; do not edit.

Every message of api/driver/v1/*.proto is a class of this module.
"""
from google.protobuf import descriptor_pool, timestamp_pb2  # noqa: F401
from google.protobuf.internal import builder

_pool = descriptor_pool.Default()
`)
	for _, f := range stripped(set).File {
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
		if err != nil {
			return file{}, err
		}
		fmt.Fprintf(&out, "_file = _pool.AddSerializedFile(\n")
		for len(raw) > 0 {
			n := min(len(raw), 24)
			fmt.Fprintf(&out, "    b%s\n", pythonBytes(raw[:n]))
			raw = raw[n:]
		}
		fmt.Fprintf(&out, ")\nbuilder.BuildMessageAndEnumDescriptors(_file, globals())\n")
		fmt.Fprintf(&out, "builder.BuildTopDescriptorsAndMessages(_file, %q, globals())\n", f.GetName())
	}
	return file{pythonFile, out.Bytes()}, nil
}

// pythonBytes is raw as the inside of a Python bytes literal, quotes included.
func pythonBytes(raw []byte) string {
	var out bytes.Buffer
	out.WriteByte('"')
	for _, c := range raw {
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, `\x%02x`, c)
		}
	}
	out.WriteByte('"')
	return out.String()
}
