"""A stand-in for the SMU Lab Notification API: one-time codes, SMS and e-mail that stay in an inbox."""
