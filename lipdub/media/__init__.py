"""Files in and out.

`probe` says what is in them; `video`, `patch` and `writer` carry pictures with their timestamps, `audio` sound;
`remux`, `output` and `marks` make the finished file. PyAV decodes and encodes; FFmpeg's command line only re-wraps
streams.
"""
