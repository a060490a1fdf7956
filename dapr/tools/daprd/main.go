// Command daprd is the Dapr sidecar, unchanged, with Dapr's stable components
// and two that its `stablecomponents` build tag leaves out: name resolution
// through a SQLite file, which lets sidecars on one machine find each other
// without multicast DNS, and the SMTP binding, through which a shop may send
// its messages.
package main

import (
	"github.com/dapr/components-contrib/bindings/smtp"
	nr "github.com/dapr/components-contrib/nameresolution/sqlite"
	"github.com/dapr/dapr/cmd/daprd/app"
	_ "github.com/dapr/dapr/cmd/daprd/components"
	bindingsLoader "github.com/dapr/dapr/pkg/components/bindings"
	nrLoader "github.com/dapr/dapr/pkg/components/nameresolution"
)

func main() {
	bindingsLoader.DefaultRegistry.RegisterOutputBinding(smtp.NewSMTP, "smtp")
	nrLoader.DefaultRegistry.RegisterComponent(nr.NewResolver, "sqlite")
	app.Run()
}
