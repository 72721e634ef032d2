-- Which migrations this lake has seen; the largest is its version.
CREATE TABLE schema_versions (version INTEGER, applied_at BIGINT);
