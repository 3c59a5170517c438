//go:build !weakened

package weak

// Off reports whether a protection is turned off: never.
func Off(Protection) bool { return false }
