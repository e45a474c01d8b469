"""A fake of the SMU Lab Notification API. Its codes, SMS and e-mails stay in an inbox."""
