package cgroup

import (
	"bytes"
	"strconv"
	"time"
)

// firstNumber reads the number that a file begins with; "max" is NoLimit.
func firstNumber(text []byte) (uint64, bool) {
	if bytes.HasPrefix(text, []byte("max")) {
		return NoLimit, true
	}
	return digits(text)
}

// digits reads a number at the beginning, without allocating.
func digits(b []byte) (uint64, bool) {
	var n uint64
	at := 0
	for ; at < len(b) && b[at] >= '0' && b[at] <= '9'; at++ {
		n = n*10 + uint64(b[at]-'0')
	}
	return n, at > 0
}

// fields goes through a file of lines "name number".
func fields(text []byte, each func(name []byte, n uint64)) {
	for len(text) > 0 {
		line := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		if space := bytes.IndexByte(line, ' '); space > 0 {
			if n, ok := digits(line[space+1:]); ok {
				each(line[:space], n)
			}
		}
	}
}

// diskV2 reads a line of io.stat: "8:0 rbytes=1 wbytes=2 rios=3 wios=4 …".
func diskV2(line []byte) (DiskIO, bool) {
	words := bytes.Fields(line)
	if len(words) < 2 {
		return DiskIO{}, false
	}
	d, ok := diskNumber(words[0])
	if !ok {
		return d, false
	}
	for _, w := range words[1:] {
		name, value, _ := bytes.Cut(w, []byte("="))
		n, _ := digits(value)
		switch string(name) {
		case "rbytes":
			d.ReadBytes = n
		case "wbytes":
			d.WriteBytes = n
		case "dbytes":
			d.DiscardBytes = n
		case "rios":
			d.Reads = n
		case "wios":
			d.Writes = n
		case "dios":
			d.Discards = n
		}
	}
	return d, true
}

// diskNumber reads "8:0".
func diskNumber(word []byte) (DiskIO, bool) {
	major, minor, ok := bytes.Cut(word, []byte(":"))
	a, ok1 := digits(major)
	b, ok2 := digits(minor)
	return DiskIO{Major: a, Minor: b}, ok && ok1 && ok2
}

// disksV1 adds a file of lines "8:0 Read 123" to the devices. Lines of other
// operations (Sync, Async, Total) say the same in another way.
func disksV1(io []DiskIO, text []byte, to func(d *DiskIO, operation string, n uint64)) []DiskIO {
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) != 3 {
			continue
		}
		d, ok := diskNumber(words[0])
		n, isNumber := digits(words[2])
		if !ok || !isNumber {
			continue
		}
		at := 0
		for at < len(io) && (io[at].Major != d.Major || io[at].Minor != d.Minor) {
			at++
		}
		if at == len(io) {
			io = append(io, d)
		}
		to(&io[at], string(words[1]), n)
	}
	return io
}

// stall reads a file of pressure: "some avg10=0.00 avg60=0.00 avg300=0.00
// total=0", the total in microseconds.
func stall(text []byte) Stall {
	var s Stall
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) == 0 {
			continue
		}
		to := &s.Some
		if string(words[0]) == "full" {
			to = &s.Full
		}
		for _, w := range words[1:] {
			name, value, _ := bytes.Cut(w, []byte("="))
			share, _ := strconv.ParseFloat(string(value), 64)
			switch string(name) {
			case "avg10":
				to.Avg10 = share
			case "avg60":
				to.Avg60 = share
			case "avg300":
				to.Avg300 = share
			case "total":
				n, _ := digits(value)
				to.Total = time.Duration(n) * time.Microsecond
			}
		}
	}
	return s
}
