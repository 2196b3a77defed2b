module podid.dev/tools/pause

go 1.25
