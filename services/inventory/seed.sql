-- Seats of the three seeded events: 5ea7000E-0000-0000-0000-00000000NNNN, E the event, NNNN the seat from 1 on.
-- Safe to run again: a seat that is there stays as it is.

INSERT INTO seats (seat_id, event_id, row_number, seat_number, category)
SELECT ('5ea7000' || event || '-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid,
       ('e0e0e0e0-0000-0000-0000-00000000000' || event)::uuid,
       label, (n - 1) % per_row + 1, category
FROM (
    -- Event 1: rows A to D of 25; row A is CAT1, rows B and C CAT2, row D CAT3.
    SELECT 1 AS event, n, 25 AS per_row, chr(65 + (n - 1) / 25) AS label,
           (ARRAY['CAT1', 'CAT2', 'CAT2', 'CAT3'])[1 + (n - 1) / 25] AS category
    FROM generate_series(1, 100) AS n
    UNION ALL
    -- Event 2: rows R001 to R100 of 50; CAT1 to row 20, CAT2 to row 60, CAT3 behind them.
    SELECT 2, n, 50, 'R' || lpad(((n - 1) / 50 + 1)::text, 3, '0'),
           CASE WHEN (n - 1) / 50 < 20 THEN 'CAT1' WHEN (n - 1) / 50 < 60 THEN 'CAT2' ELSE 'CAT3' END
    FROM generate_series(1, 5000) AS n
    UNION ALL
    -- Event 3 is over: one row of 20.
    SELECT 3, n, 20, 'A', 'CAT1' FROM generate_series(1, 20) AS n
) AS layout
ON CONFLICT DO NOTHING;
