-- The first init script of a database container. It creates the service's role, which owns this database and nothing else.
\getenv role DB_USER
\getenv password POSTGRES_PASSWORD
CREATE ROLE :"role" LOGIN PASSWORD :'password';
ALTER DATABASE :"DBNAME" OWNER TO :"role";

-- The image runs each later script in a new session as the superuser. This setting lets the role own what they create.
-- `SET ROLE NONE` ends it for a session.
ALTER ROLE CURRENT_USER IN DATABASE :"DBNAME" SET role = :'role';

-- Without a password the superuser can log in only inside the container. The image gave it the role's password.
ALTER ROLE CURRENT_USER PASSWORD NULL;
