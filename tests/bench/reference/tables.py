"""The reference floor's tables and statements, the smallest that can hold a start, on PostgreSQL and on SQLite."""

TABLES = """
CREATE TABLE organization (id {uuid} PRIMARY KEY, slug text NOT NULL UNIQUE, name text NOT NULL);
CREATE TABLE environment (
    id {uuid} PRIMARY KEY, organization_id {uuid} NOT NULL REFERENCES organization, name text NOT NULL,
    temporal_host text NOT NULL, temporal_namespace text NOT NULL, temporal_api_key {bytes} NOT NULL,
    litellm_api_url text NOT NULL, litellm_api_key {bytes} NOT NULL
);
CREATE TABLE worker_queue (
    id {uuid} PRIMARY KEY, environment_id {uuid} NOT NULL REFERENCES environment, name text NOT NULL,
    heartbeat_interval integer NOT NULL
);
CREATE TABLE api_key (id {uuid} PRIMARY KEY, hash text NOT NULL, revoked_at {time}, expires_at {time} NOT NULL);
CREATE TABLE worker (
    id {uuid} PRIMARY KEY, worker_queue_id {uuid} NOT NULL REFERENCES worker_queue, status text NOT NULL,
    last_seen_at {time}
);
CREATE TABLE worker_start (
    id {identity} PRIMARY KEY, worker_id {uuid} NOT NULL REFERENCES worker,
    api_key_id {uuid} NOT NULL REFERENCES api_key, started_at {time} NOT NULL, system_info {json} NOT NULL
);
CREATE INDEX worker_start_by_worker ON worker_start (worker_id, started_at DESC);
"""
POSTGRESQL = {
    "uuid": "uuid",
    "time": "timestamptz",
    "bytes": "bytea",
    "json": "jsonb",
    "identity": "bigint GENERATED ALWAYS AS IDENTITY",
}
SQLITE = {"uuid": "text", "time": "text", "bytes": "blob", "json": "text", "identity": "integer"}

READ = """
SELECT worker_queue.name, worker_queue.heartbeat_interval, environment.name, temporal_host, temporal_namespace,
    temporal_api_key, litellm_api_url, litellm_api_key, organization.id, organization.slug
FROM worker
JOIN worker_queue ON worker_queue.id = worker.worker_queue_id
JOIN environment ON environment.id = worker_queue.environment_id
JOIN organization ON organization.id = environment.organization_id
JOIN api_key ON api_key.id = %s AND api_key.hash = %s AND revoked_at IS NULL AND expires_at > %s
WHERE worker.id = %s
"""
NOTE = "UPDATE worker SET status = 'active', last_seen_at = %s WHERE id = %s"
RECORD = "INSERT INTO worker_start (worker_id, api_key_id, started_at, system_info) VALUES (%s, %s, %s, %s)"
BEAT = """
UPDATE worker SET last_seen_at = %s FROM api_key
WHERE worker.id = %s AND api_key.id = %s AND api_key.hash = %s AND revoked_at IS NULL AND expires_at > %s
"""
