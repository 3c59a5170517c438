package oci

import (
	"testing"

	"github.com/gantryd/gantry/sdk/conform"
	"github.com/gantryd/gantry/sdk/imagedriver/imagetest"
)

func TestContract(t *testing.T) { imagetest.Run(conform.Testing(t), New) }
