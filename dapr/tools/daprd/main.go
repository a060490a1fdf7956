// Command daprd is the Dapr sidecar, unchanged, with Dapr's stable components
// and one that its `stablecomponents` build tag leaves out: name resolution
// through a SQLite file, which lets sidecars on one machine find each other
// without multicast DNS.
package main

import (
	nr "github.com/dapr/components-contrib/nameresolution/sqlite"
	"github.com/dapr/dapr/cmd/daprd/app"
	_ "github.com/dapr/dapr/cmd/daprd/components"
	nrLoader "github.com/dapr/dapr/pkg/components/nameresolution"
)

func main() {
	nrLoader.DefaultRegistry.RegisterComponent(nr.NewResolver, "sqlite")
	app.Run()
}
