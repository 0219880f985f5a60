package main

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// One file operation. Op is one of directory, file (created, or truncated in place), append, replace (a new file renamed
// over Path), link (symbolic), hardlink, fifo, remove (recursive), touch (attributes only). Paths are
// relative to the tree.
type step struct {
	Op   string `json:"op"`
	Path string `json:"path"`
	// Where a link leads to, as it is stored; for hardlink: the path of the existing file.
	To string `json:"to"`
	// Base64.
	Bytes  string            `json:"bytes"`
	Mode   *uint32           `json:"mode"`
	UID    int               `json:"uid"`
	GID    int               `json:"gid"`
	Mtime  *mtime            `json:"mtime"`
	Xattrs map[string]string `json:"xattrs"`
}

type mtime struct {
	Seconds     int64 `json:"seconds"`
	Nanoseconds int64 `json:"nanoseconds"`
}

// Modification times are set last, since creating files in a directory changes the directory's.
func perform(root string, steps []step) error {
	for _, each := range steps {
		if err := performOne(root, each); err != nil {
			return fmt.Errorf("%s %s: %w", each.Op, each.Path, err)
		}
	}
	for _, each := range steps {
		if each.Mtime == nil {
			continue
		}
		times := []syscall.Timespec{
			{Sec: each.Mtime.Seconds, Nsec: each.Mtime.Nanoseconds},
			{Sec: each.Mtime.Seconds, Nsec: each.Mtime.Nanoseconds},
		}
		path := filepath.Join(root, each.Path)
		if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink != 0 {
			continue
		}
		if err := syscall.UtimesNano(path, times); err != nil {
			return fmt.Errorf("mtime of %s: %w", each.Path, err)
		}
	}
	return nil
}

func performOne(root string, each step) error {
	path := filepath.Join(root, each.Path)
	bytes, err := base64.StdEncoding.DecodeString(each.Bytes)
	if err != nil {
		return err
	}
	switch each.Op {
	case "directory":
		err = os.MkdirAll(path, 0o755)
	case "file":
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			err = os.WriteFile(path, bytes, 0o644)
		}
	case "append":
		var file *os.File
		if file, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0); err == nil {
			_, err = file.Write(bytes)
			file.Close()
		}
	case "replace":
		temporary := path + ".new"
		if err = os.WriteFile(temporary, bytes, 0o644); err == nil {
			err = os.Rename(temporary, path)
		}
	case "link":
		return os.Symlink(each.To, path)
	case "hardlink":
		return os.Link(filepath.Join(root, each.To), path)
	case "fifo":
		err = syscall.Mkfifo(path, 0o644)
	case "remove":
		return os.RemoveAll(path)
	case "touch":
	default:
		err = fmt.Errorf("unknown operation")
	}
	if err != nil {
		return err
	}
	if each.UID != 0 || each.GID != 0 {
		if err := os.Chown(path, each.UID, each.GID); err != nil {
			return err
		}
	}
	if each.Mode != nil {
		if err := syscall.Chmod(path, *each.Mode); err != nil {
			return err
		}
	}
	for name, value := range each.Xattrs {
		if err := syscall.Setxattr(path, name, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// All that cleanup has to give back. Hard links are not recorded: each name is a file of its own.
type entry struct {
	Type   string            `json:"type"`
	Mode   uint32            `json:"mode"`
	UID    uint32            `json:"uid"`
	GID    uint32            `json:"gid"`
	Mtime  string            `json:"mtime"`
	To     string            `json:"to,omitempty"`
	Bytes  string            `json:"bytes,omitempty"`
	Xattrs map[string]string `json:"xattrs,omitempty"`
}

// Paths are relative to root, which is ".". Does not follow links. A root that does not exist has no entries.
func snapshot(root string) (map[string]entry, error) {
	entries := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, found fs.DirEntry, err error) error {
		if os.IsNotExist(err) && path == root {
			return nil
		}
		if err != nil {
			return err
		}
		relative, _ := filepath.Rel(root, path)
		entries[relative], err = describeEntry(path)
		return err
	})
	return entries, err
}

func describeEntry(path string) (entry, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return entry{}, err
	}
	stat := info.Sys().(*syscall.Stat_t)
	result := entry{
		Mode:  stat.Mode & 0o7777,
		UID:   stat.Uid,
		GID:   stat.Gid,
		Mtime: fmt.Sprintf("%d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec),
	}
	switch info.Mode().Type() {
	case 0:
		result.Type = "file"
		bytes, err := os.ReadFile(path)
		if err != nil {
			return entry{}, err
		}
		result.Bytes = base64.StdEncoding.EncodeToString(bytes)
	case fs.ModeDir:
		result.Type = "directory"
	case fs.ModeSymlink:
		result.Type = "link"
		result.To, err = os.Readlink(path)
		return result, err
	default:
		result.Type = info.Mode().Type().String()
		return result, nil
	}
	result.Xattrs, err = xattrs(path)
	return result, err
}

func xattrs(path string) (map[string]string, error) {
	buffer := make([]byte, 4096)
	size, err := syscall.Listxattr(path, buffer)
	if err == syscall.ENOTSUP || size == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimRight(string(buffer[:size]), "\x00"), "\x00")
	sort.Strings(names)
	result := map[string]string{}
	for _, name := range names {
		value := make([]byte, 4096)
		size, err := syscall.Getxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		result[name] = string(value[:size])
	}
	return result, nil
}
