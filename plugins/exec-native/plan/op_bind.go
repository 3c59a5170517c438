package plan

// Bind makes a bind mount of Source, the host's, and attaches it at Target. It is
// made when its turn comes, not before as one of Attach is: since Linux 6.8 mount
// tables list mounts by their age. The root covers "/" by then but is not the root
// directory before Pivot, so that Source leads into what the namespace was copied
// from; with a ".." it could lead into the container. Stage 5, between Root and
// Pivot.
type Bind struct {
	Source       string // absolute, without links
	Major, Minor uint32 // of the device that Source must be on,
	Inode        uint64 // and its number there, or ESTALE; 0: whatever it is
	Recursive    bool   // with the mounts below
	// Peer is a clone of Source's mount, the host's own, or NoFD. The new mount joins
	// its peers, whose group the copies in the init's namespace have left (Linux 5.15).
	Peer   FD
	Target string
	Create uint32
	Attrs  []Attr // one after the other; the propagation as in Attach
}

// Kind implements Op.
func (Bind) Kind() Kind { return KindBind }

func (o Bind) put(w *writer) {
	if len(o.Attrs) > MaxAttrs {
		w.fail("%d changes of attributes: at most %d", len(o.Attrs), MaxAttrs)
		return
	}
	w.fd(o.Peer)
	w.u32(o.Create)
	w.flag(o.Recursive)
	w.u32(o.Major)
	w.u32(o.Minor)
	w.u64(o.Inode)
	w.u32(uint32(len(o.Attrs)))
	for _, a := range o.Attrs {
		a.put(w)
	}
	w.str(o.Source, MaxPath)
	w.str(o.Target, MaxPath)
}
