-- Metric points with what each adds to its series: the delta of a cumulative point from the one before.
--
-- A counter starts anew when its start time changes or its value falls (its process started again): then all of
-- its value is new. Of the very first point nobody knows what was counted before we looked, unless it started
-- within the last five minutes; else its delta is null. Gauges and counters that also fall have no delta.
CREATE OR REPLACE VIEW metric_points AS
WITH points AS (
    SELECT
        *,
        coalesce(value_double, value_int, count::DOUBLE) AS value,
        coalesce(aggregation_temporality, CASE WHEN type = 'summary' THEN 2 END) AS temporality
    FROM metrics
    WHERE flags & 1 = 0  -- bit 0: no recorded value
),
neighbours AS (
    SELECT
        *,
        lag(time_unix_nano) OVER series AS previous_time_unix_nano,
        lag(start_time_unix_nano) OVER series AS previous_start_unix_nano,
        lag(value) OVER series AS previous_value,
        lag(sum) OVER series AS previous_sum,
        lag(bucket_counts) OVER series AS previous_bucket_counts,
        lag(scale) OVER series AS previous_scale,
        lag(zero_count) OVER series AS previous_zero_count,
        lag(positive_offset) OVER series AS previous_positive_offset,
        lag(positive_bucket_counts) OVER series AS previous_positive_bucket_counts,
        lag(negative_offset) OVER series AS previous_negative_offset,
        lag(negative_bucket_counts) OVER series AS previous_negative_bucket_counts
    FROM points
    WINDOW series AS (
        PARTITION BY resource, scope_name, scope_version, scope_attributes, name, type, unit, attributes
        ORDER BY time_unix_nano, start_time_unix_nano, content_hash
    )
),
judged AS (
    SELECT
        *,
        type = 'gauge' OR (type = 'sum' AND NOT is_monotonic AND temporality = 2) AS is_state,
        temporality = 2 AND start_time_unix_nano = previous_start_unix_nano AND value >= previous_value
            AS continues,
        temporality = 1 OR previous_value IS NOT NULL OR (
            start_time_unix_nano > 0 AND time_unix_nano - start_time_unix_nano <= 300000000000
        ) AS is_counted
    FROM neighbours
)
SELECT
    make_timestamp_ns(time_unix_nano) AS time,
    * EXCLUDE (is_state, continues, is_counted),
    is_state,
    coalesce(continues, false) AS continues,
    CASE
        WHEN is_state OR NOT is_counted THEN NULL
        WHEN continues THEN value - previous_value
        ELSE value
    END AS delta,  -- of a counter its value, of histogram and summary the count
    CASE
        WHEN is_state OR NOT is_counted THEN NULL
        WHEN continues THEN sum - previous_sum
        ELSE sum
    END AS delta_sum,
    (time_unix_nano - CASE WHEN continues THEN previous_time_unix_nano ELSE start_time_unix_nano END) / 1e9
        AS delta_seconds
FROM judged;
