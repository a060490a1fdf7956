# Sourced once by the entrypoint of the MySQL image, when the volume is empty (the file is not executable on purpose: only
# what is sourced may call docker_process_sql). Each component gets a schema and a user who may use nothing else.
for component in orders payments inventory; do
  password=${component^^}_PASSWORD
  docker_process_sql <<SQL
CREATE DATABASE \`$component\` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin; -- keys tell A from a
CREATE USER '$component'@'%' IDENTIFIED BY '${!password}';
GRANT ALL ON \`$component\`.* TO '$component'@'%';
SQL
done
