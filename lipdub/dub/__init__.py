"""The main job: `sync_video`, its dry run (`plan_sync`), the faces of a video (`list_faces`), and their reports."""
