package host

import (
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/netdriver/nettest"
)

func TestContract(t *testing.T) {
	nettest.Run(conform.Testing(t), New)
}
