#!/bin/sh
# Creates a role and a database for Clapboard, and another pair for Label Studio. Runs once, on a new PostgreSQL volume.
set -eu

create() {
    psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres \
        --set role="$1" --set password="$2" <<'SQL'
CREATE ROLE :"role" LOGIN PASSWORD :'password';
CREATE DATABASE :"role" OWNER :"role";
REVOKE ALL ON DATABASE :"role" FROM PUBLIC;
SQL
}

create clapboard "$CLAPBOARD_ROLE_PASSWORD"
create labelstudio "$LABEL_STUDIO_ROLE_PASSWORD"
