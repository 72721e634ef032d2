-- What was counted in each bucket of the histograms of a memory: one row per memory and bucket.
--
-- A point counts its buckets, less those of the point before when it continues it. Exponential buckets are brought
-- to the coarsest scale among them first: bucket i at scale s holds (b^i, b^(i+1)] with b = 2^(2^-s), and at scale
-- s-1 it is bucket floor(i/2) (OpenTelemetry, metrics data model).
CREATE OR REPLACE VIEW metric_buckets AS
WITH points AS (
    SELECT sources.memory_id, points.*
    FROM memory_sources AS sources
    JOIN metric_points AS points USING (content_hash)
    WHERE sources.type = 'performance_metric'
      AND points.type IN ('histogram', 'exponential_histogram')
      AND points.delta IS NOT NULL
),
explicit AS (
    SELECT
        memory_id,
        place,
        CASE WHEN place > 1 THEN explicit_bounds[place - 1] END AS lower_bound,
        CASE WHEN place <= len(explicit_bounds) THEN explicit_bounds[place] END AS upper_bound,
        bucket_counts[place]::HUGEINT
        - CASE WHEN continues THEN coalesce(previous_bucket_counts[place], 0) ELSE 0 END AS counted
    FROM (
        SELECT *, unnest(generate_series(1, len(bucket_counts))) AS place
        FROM points
        WHERE type = 'histogram'
    )
),
sides AS (
    SELECT memory_id, scale, 1 AS side, 1 AS sign, positive_offset AS first_index,
        positive_bucket_counts AS counts
    FROM points WHERE type = 'exponential_histogram'
    UNION ALL
    SELECT memory_id, scale, -1, 1, negative_offset, negative_bucket_counts
    FROM points WHERE type = 'exponential_histogram'
    UNION ALL
    SELECT memory_id, previous_scale, 1, -1, previous_positive_offset, previous_positive_bucket_counts
    FROM points WHERE type = 'exponential_histogram' AND continues
    UNION ALL
    SELECT memory_id, previous_scale, -1, -1, previous_negative_offset, previous_negative_bucket_counts
    FROM points WHERE type = 'exponential_histogram' AND continues
),
coarsest AS (
    SELECT memory_id, min(scale) AS scale FROM sides GROUP BY memory_id
),
exponential AS (
    SELECT
        unnested.memory_id,
        side,
        floor((first_index + place - 1) / pow(2, unnested.scale - coarsest.scale)) AS place,
        pow(2, -coarsest.scale) AS width,  -- log2 of the base
        sign * counts[unnested.place]::HUGEINT AS counted
    FROM (SELECT *, unnest(generate_series(1, len(counts))) AS place FROM sides) AS unnested
    JOIN coarsest USING (memory_id)
)
SELECT memory_id, false AS is_exponential, lower_bound, upper_bound, sum(counted) AS counted
FROM explicit
GROUP BY ALL
UNION ALL
SELECT
    memory_id,
    true,
    side * pow(2, width * (place + CASE WHEN side = 1 THEN 0 ELSE 1 END)),
    side * pow(2, width * (place + CASE WHEN side = 1 THEN 1 ELSE 0 END)),
    sum(counted)
FROM exponential
GROUP BY ALL
UNION ALL
SELECT
    memory_id, true, 0.0, 0.0,
    sum(zero_count::HUGEINT - CASE WHEN continues THEN coalesce(previous_zero_count, 0) ELSE 0 END)
FROM points
WHERE type = 'exponential_histogram'
GROUP BY memory_id;
