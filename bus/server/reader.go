package server

import (
	"github.com/nats-io/nats-server/v2/server"
)

func (r *registry) signed(server.ClientAuthentication) bool { return false }
func (r *registry) readerPermissions(peer) *server.Permissions {
	return &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{}}}
}
