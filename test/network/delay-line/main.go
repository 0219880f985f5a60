// delay-line A B MICROSECONDS makes two TAP devices and hands on every frame from one to the other, that much later.
// It stands for netem where the kernel has none. Frames keep their segmentation offload, so one of 64 KiB passes as one.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const (
	tunSetIff     = 0x400454ca
	tunSetOffload = 0x400454d0
	iffTap        = 0x0002
	iffNoPi       = 0x1000
	// Frames begin with struct virtio_net_hdr, which tells of checksums and segments that are still to be made.
	iffVnetHdr = 0x4000
	// Checksums, TCP over IPv4 and IPv6, with ECN.
	offloads        = 0x01 | 0x02 | 0x04 | 0x08
	frameBytesMax   = 80 * 1024
	framesMax       = 16 * 1024
	prSetTimerslack = 29
)

type frame struct {
	due   time.Time
	bytes []byte
}

func main() {
	if len(os.Args) != 4 {
		fail("usage: delay-line A B MICROSECONDS", nil)
	}
	microseconds, err := strconv.Atoi(os.Args[3])
	if err != nil || microseconds < 0 {
		fail("not a number of microseconds: "+os.Args[3], err)
	}
	delay := time.Duration(microseconds) * time.Microsecond
	a, b := open(os.Args[1]), open(os.Args[2])
	go carry(a, b, delay)
	go carry(b, a, delay)
	fmt.Println("ready")
	select {}
}

func open(name string) int {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		fail("/dev/net/tun", err)
	}
	var request [40]byte
	copy(request[:syscall.IFNAMSIZ-1], name)
	*(*uint16)(unsafe.Pointer(&request[syscall.IFNAMSIZ])) = iffTap | iffNoPi | iffVnetHdr
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetIff, uintptr(unsafe.Pointer(&request))); errno != 0 {
		fail("TUNSETIFF "+name, errno)
	}
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), tunSetOffload, offloads); errno != 0 {
		fail("TUNSETOFFLOAD "+name, errno)
	}
	return fd
}

func carry(from, to int, delay time.Duration) {
	queue := make(chan frame, framesMax)
	go write(to, queue)
	runtime.LockOSThread()
	buffer := make([]byte, frameBytesMax)
	for {
		n, err := syscall.Read(from, buffer)
		if err == syscall.EINTR || err == syscall.EIO {
			// EIO: the device is not up yet.
			if err == syscall.EIO {
				time.Sleep(time.Millisecond)
			}
			continue
		}
		if err != nil {
			fail("read", err)
		}
		select {
		case queue <- frame{time.Now().Add(delay), append([]byte(nil), buffer[:n]...)}:
		default:
			// A full cable loses frames.
		}
	}
}

func write(to int, queue <-chan frame) {
	// A thread of its own, that is woken at the nanosecond and not up to 50 µs later. Go's own timers are late by more.
	runtime.LockOSThread()
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslack, 1, 0)
	for next := range queue {
		for {
			left := time.Until(next.due)
			if left <= 0 {
				break
			}
			wait := syscall.NsecToTimespec(left.Nanoseconds())
			_ = syscall.Nanosleep(&wait, nil)
		}
		// A device that is down, or has no room, loses the frame.
		_, _ = syscall.Write(to, next.bytes)
	}
}

func fail(what string, err error) {
	fmt.Fprintln(os.Stderr, "delay-line:", what, err)
	os.Exit(1)
}
