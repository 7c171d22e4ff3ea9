#!/bin/sh
# Dub a video, and tell the kinds of failure apart by the exit code:  exit_codes.sh VIDEO SPEECH OUTPUT
# Nothing is left behind by a dub that fails, so that every case may simply be tried again.
set -u
LIPDUB=${LIPDUB:-lipdub}

$LIPDUB sync "$1" "$2" -o "$3" -y -q
code=$?
case $code in
    0) echo "dubbed: $3" ;;
    3) echo "input: not readable; get the file again" ;;
    4) echo "no face: the video goes on as it is" ; cp "$1" "$3" ;;
    6 | 7) echo "installation: see lipdub doctor" ;;
    8) echo "resources: try again later" ;;
    130 | 143) echo "interrupted" ;;
    *) echo "failed with code $code" ;;
esac
exit $code
