package engine

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantryd/gantry/core"
	"github.com/gantryd/gantry/internal/errclass"
)

// keySize is that of AES-256.
const keySize = 32

// Keys keeps one key for each container outside of the log: what is sealed with
// it is gone for ever when the key is.
type Keys interface {
	// Load gives the key; NotFound if there is none.
	Load(id core.ContainerID) ([]byte, error)
	// Save returns when the key is durable.
	Save(id core.ContainerID, key []byte) error
	// Destroy makes the key unreadable; none is fine.
	Destroy(id core.ContainerID) error
	// List gives the containers that have keys.
	List() ([]core.ContainerID, error)
}

// vault seals the values that must not be in the log in clear.
type vault struct {
	keys   Keys
	random io.Reader
}

func newVault(keys Keys, random io.Reader) *vault { return &vault{keys, random} }

// secretive is a command that carries secrets.
type secretive interface {
	Secrets() (core.ContainerID, []*core.Env)
}

// refuseSealed refuses values that claim to be sealed: only the engine seals.
func refuseSealed(c core.Command) error {
	s, ok := c.(secretive)
	if !ok {
		return nil
	}
	_, values := s.Secrets()
	for _, v := range values {
		if v.Sealed {
			return errclass.Errorf(errdefs.ErrInvalidArgument, "environment variable %s: a value cannot be sent sealed", v.Name)
		}
	}
	return nil
}

// seal seals the command's secrets in place: with the key of their container if
// that is there, else with a new one. The caller leaves it out for what nothing
// will follow from: a repeat of a command, an id that is in use. A key without a
// container belongs to nobody.
func (v *vault) seal(c core.Command, s0 *core.State) error {
	s, ok := c.(secretive)
	if !ok {
		return nil
	}
	id, values := s.Secrets()
	values = slices.DeleteFunc(values, func(e *core.Env) bool { return e.Value == "" || e.Sealed })
	if len(values) == 0 || !isHex(string(id)) {
		return nil
	}
	key, err := v.keyFor(id, s0.Containers[id] != nil)
	if err != nil {
		return err
	}
	box, err := boxOf(key)
	if err != nil {
		return err
	}
	for _, e := range values {
		nonce := make([]byte, box.NonceSize())
		if _, err := io.ReadFull(v.random, nonce); err != nil {
			return fmt.Errorf("make a nonce: %w", err)
		}
		e.Value = base64.StdEncoding.EncodeToString(box.Seal(nonce, nonce, []byte(e.Value), boundTo(id, e.Name)))
		e.Sealed = true
	}
	return nil
}

// keyFor is the key of a container that is there, or a new one.
func (v *vault) keyFor(id core.ContainerID, there bool) ([]byte, error) {
	if there {
		if key, err := v.keys.Load(id); err == nil || !errdefs.IsNotFound(err) {
			return key, err
		}
	}
	key := make([]byte, keySize)
	if _, err := io.ReadFull(v.random, key); err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := v.keys.Save(id, key); err != nil {
		return nil, fmt.Errorf("keep the key of container %.12s: %w", id, err)
	}
	return key, nil
}

// boundTo binds a sealed value to its container and its variable.
func boundTo(id core.ContainerID, name string) []byte { return []byte(string(id) + "\x00" + name) }

func boxOf(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// isHex reports whether id is one that the core takes: it becomes a file's name.
func isHex(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == 64
}

// open gives the step with its secrets in clear, as a copy: what is owed stays
// sealed.
func (v *vault) open(st core.Step) (core.Step, error) {
	var err error
	switch st := st.(type) {
	case core.StartProcess:
		spec := *st.Spec
		spec.Process.Env, err = v.openEnv(st.Container, spec.Process.Env)
		st.Spec = &spec
		return st, err
	case core.StartExec:
		st.Spec.Env, err = v.openEnv(st.Container, st.Spec.Env)
		return st, err
	case core.WatchHealth:
		st.Process.Env, err = v.openEnv(st.Container, st.Process.Env)
		return st, err
	}
	return st, nil
}

// openEnv gives the variables in clear, as a copy if any was sealed.
func (v *vault) openEnv(id core.ContainerID, sealedEnv []core.Env) ([]core.Env, error) {
	if !slices.ContainsFunc(sealedEnv, func(e core.Env) bool { return e.Sealed }) {
		return sealedEnv, nil
	}
	key, err := v.keys.Load(id)
	if err != nil {
		return nil, errclass.Errorf(errdefs.ErrFailedPrecondition, "open the environment of container %.12s: its key is gone: %w", id, err)
	}
	box, err := boxOf(key)
	if err != nil {
		return nil, err
	}
	env := slices.Clone(sealedEnv)
	for i := range env {
		e := &env[i]
		if !e.Sealed {
			continue
		}
		sealed, err := base64.StdEncoding.DecodeString(e.Value)
		if err != nil || len(sealed) < box.NonceSize() {
			return nil, errclass.Errorf(errdefs.ErrDataLoss, "open environment variable %s: the sealed value is damaged", e.Name)
		}
		clear, err := box.Open(nil, sealed[:box.NonceSize()], sealed[box.NonceSize():], boundTo(id, e.Name))
		if err != nil {
			return nil, errclass.Errorf(errdefs.ErrDataLoss, "open environment variable %s: %w", e.Name, err)
		}
		e.Value, e.Sealed = string(clear), false
	}
	return env, nil
}

func (v *vault) destroy(id core.ContainerID) error { return v.keys.Destroy(id) }

// unseal destroys the key of a command that was refused.
func (v *vault) unseal(c core.Command, s *core.State) error {
	if with, ok := c.(secretive); ok {
		if id, _ := with.Secrets(); s.Containers[id] == nil && isHex(string(id)) {
			return v.keys.Destroy(id)
		}
	}
	return nil
}

// sweep destroys the keys of containers that the log does not know: the engine
// ended between a key and its event, or between a removal and its key's end.
func (v *vault) sweep(s *core.State) error {
	ids, err := v.keys.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if s.Containers[id] == nil {
			err = firstError(err, v.keys.Destroy(id))
		}
	}
	return err
}
