-- Links that were handed out, by whom they are for: a new password ends them.

CREATE INDEX person_links_by_email ON person_links (email);
