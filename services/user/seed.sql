-- The customers of the examples. Both passwords are password123. `add_staff.py` adds the staff account.
-- The script is safe to run again, because it leaves existing users unchanged.
WITH seeded AS (
    INSERT INTO users (user_id, email, phone, role, credit_balance, is_flagged, password_hash)
    SELECT *, '$2b$10$FnkOOyBjJLabDamFupmc1Oax.UNTFWouyvwef.O2bh5ZTPSAbszRu'
    FROM (VALUES
        ('00000000-0000-0000-0000-000000000001'::uuid, 'user1@example.com', '+6591234567', 'customer', 1000.00, false),
        ('00000000-0000-0000-0000-000000000002'::uuid, 'user2@example.com', '+6591234568', 'customer',  500.00, true)
    ) AS people
    ON CONFLICT DO NOTHING
    RETURNING user_id, credit_balance
)
INSERT INTO credit_entries (key, user_id, amount, kind)
SELECT 'seed:' || user_id || ':1:opening', user_id, credit_balance, 'OPENING' FROM seeded;
