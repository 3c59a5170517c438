package overlay

import (
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/graphdriver/graphtest"
)

func TestContract(t *testing.T) { graphtest.Run(conform.Testing(t), New) }
