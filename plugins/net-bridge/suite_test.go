package bridge

import (
	"os"
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/netdriver/nettest"
)

func TestContract(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		t.Skip("needs root: it makes links and namespaces")
	}
	nettest.Run(conform.Testing(t), New)
}
