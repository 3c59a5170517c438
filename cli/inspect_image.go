package cli

import (
	"strings"

	"github.com/gantryd/gantry/internal/query"
)

type (
	dockerImage struct {
		Id           string
		RepoTags     []string
		RepoDigests  []string
		Created      stamp
		Architecture string
		Os           string
		Size         int64
		Config       dockerImageConfig
		RootFS       dockerRootFS
		Descriptor   dockerDescriptor
	}

	dockerImageConfig struct {
		User         string
		ExposedPorts map[string]struct{} `json:",omitempty"`
		Env          []string
		Cmd          []string
		Volumes      map[string]struct{} `json:",omitempty"`
		WorkingDir   string
		Entrypoint   []string
		Labels       map[string]string
		StopSignal   string `json:",omitempty"`
	}

	dockerRootFS struct {
		Type   string
		Layers []string
	}

	dockerDescriptor struct {
		Digest string `json:"digest"`
		Size   int64  `json:"size,omitempty"`
	}

	dockerNetwork struct {
		Name       string
		Id         string
		Scope      string
		Driver     string
		IPAM       dockerIPAM
		Internal   bool
		Containers map[string]dockerMember
		Options    map[string]string
		Labels     map[string]string
	}

	dockerIPAM struct{ Config []dockerSubnet }

	dockerSubnet struct {
		Subnet  string
		Gateway string
	}

	dockerMember struct {
		Name        string
		MacAddress  string
		IPv4Address string
	}
)

// imageView is an image in Docker's form.
func imageView(d *query.ImageDetail) dockerImage {
	v := dockerImage{
		Id: string(d.ID), RepoTags: []string{}, RepoDigests: []string{}, Created: stamp{d.Created.UTC()},
		Architecture: d.Architecture, Os: d.OS, Size: d.Unpacked, RootFS: dockerRootFS{Type: "layers"},
		Descriptor: dockerDescriptor{Digest: d.Manifest},
	}
	for _, name := range d.Names {
		if strings.Contains(name, "@") {
			v.RepoDigests = append(v.RepoDigests, withTag(name))
		} else {
			v.RepoTags = append(v.RepoTags, withTag(name))
		}
	}
	c := &d.State.Config
	v.Config = dockerImageConfig{
		User: c.User, ExposedPorts: keys(c.ExposedPorts), Env: environmentView(c.Env), Cmd: c.Cmd,
		Volumes: keys(c.Volumes), WorkingDir: c.Cwd, Entrypoint: c.Entrypoint, Labels: c.Labels,
	}
	if c.StopSignal != 0 {
		v.Config.StopSignal = signalName(c.StopSignal)
	}
	for _, l := range d.State.Layers {
		v.RootFS.Layers = append(v.RootFS.Layers, l.DiffID)
	}
	return v
}

func keys(list []string) map[string]struct{} {
	m := make(map[string]struct{}, len(list))
	for _, k := range list {
		m[k] = struct{}{}
	}
	return m
}

// networkView is a network in Docker's form.
func networkView(d *query.NetworkDetail) dockerNetwork {
	v := dockerNetwork{
		Name: d.Name, Id: string(d.ID), Scope: "local", Driver: d.Driver, Internal: d.Internal,
		IPAM: dockerIPAM{Config: []dockerSubnet{}}, Containers: make(map[string]dockerMember),
		Options: d.State.Options, Labels: d.State.Labels,
	}
	if d.Subnet != "" {
		v.IPAM.Config = append(v.IPAM.Config, dockerSubnet{d.Subnet, d.Gateway})
	}
	for _, m := range d.Attachments {
		member := dockerMember{Name: m.ContainerName, MacAddress: m.Address.MAC}
		if m.Address.IP.IsValid() {
			member.IPv4Address = m.Address.IP.String()
		}
		v.Containers[string(m.Container)] = member
	}
	return v
}
