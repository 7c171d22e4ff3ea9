"""`lipdub ui`: a page in the browser for the main job. Needs the extra ui."""
