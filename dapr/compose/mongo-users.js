// Run once by the entrypoint of the MongoDB image, when the volume is empty: each component gets a user in a database of
// its own, who may use nothing else.
for (const component of ["tickets", "deliveries", "messages"])
  db.getSiblingDB(component).createUser({
    user: component,
    pwd: process.env[`${component.toUpperCase()}_PASSWORD`],
    roles: [{ role: "readWrite", db: component }],
  });
