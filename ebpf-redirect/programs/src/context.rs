//! What the kernel shows to the programs on socket calls, read and written field by field: the
//! verifier forbids accesses of other widths, into which the compiler would merge plain ones.

use core::ffi::c_void;
use core::ptr::{read_volatile, write_volatile};

use abi::{Address, is_loopback_v4, is_loopback_v6, is_mapped};
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::programs::SockAddrContext;

pub const AF_INET6: u32 = 10;
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;
pub const MPTCP: u32 = 262;

/// 127.0.0.1 as it lies in memory.
const LOCALHOST_V4: u32 = 0x7f00_0001_u32.to_be();
/// The last word of `::1` as it lies in memory.
const LOCALHOST_V6: u32 = 1_u32.to_be();

/// An address that the application gave, or that it is about to get.
pub struct Call {
    raw: *mut bpf_sock_addr,
    /// Of the program, known when it is compiled: a program of one family may not touch the fields
    /// of the other.
    v6: bool,
}

impl Call {
    #[inline(always)]
    pub fn v4(context: &SockAddrContext) -> Self {
        Self { raw: context.sock_addr, v6: false }
    }

    #[inline(always)]
    pub fn v6(context: &SockAddrContext) -> Self {
        Self { raw: context.sock_addr, v6: true }
    }

    #[inline(always)]
    pub fn context(&self) -> *mut c_void {
        self.raw.cast()
    }

    #[inline(always)]
    pub fn socket(&self) -> *mut c_void {
        unsafe { (*self.raw).__bindgen_anon_1.sk }.cast()
    }

    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        unsafe { read_volatile(&raw const (*self.raw).protocol) }
    }

    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        matches!(self.protocol(), TCP | MPTCP)
    }

    /// IPv4 comes as v4-mapped.
    #[inline(always)]
    pub fn address(&self) -> Address {
        let port = u16::from_be(unsafe { read_volatile(&raw const (*self.raw).user_port) } as u16);
        if self.v6 { Address::from_words(self.words(), port) } else { Address::from_v4(self.word(), port) }
    }

    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        if self.v6 { is_loopback_v6(&self.words()) } else { is_loopback_v4(self.word()) }
    }

    /// Whether packets to the address will be IPv4.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        !self.v6 || is_mapped(&self.words())
    }

    /// Sends the call to this host's own address of the same family.
    #[inline(always)]
    pub fn to_loopback(&self, port: u16) {
        if self.is_v4() {
            self.set_v4(LOCALHOST_V4);
        } else {
            self.set_words([0, 0, 0, LOCALHOST_V6]);
        }
        self.set_port(port);
    }

    /// Puts `address` in place of what is there, where the socket's family can say it.
    #[inline(always)]
    pub fn set(&self, address: &Address) {
        let words = address.words();
        if self.v6 {
            self.set_words(words);
        } else if is_mapped(&words) {
            self.set_v4(words[3]);
        } else {
            return;
        }
        self.set_port(address.port);
    }

    /// Sets the address, without the port, of an IPv4 or v4-mapped call.
    #[inline(always)]
    pub fn set_v4(&self, word: u32) {
        unsafe {
            if self.v6 {
                write_volatile(&raw mut (*self.raw).user_ip6[3], word);
            } else {
                write_volatile(&raw mut (*self.raw).user_ip4, word);
            }
        }
    }

    /// Sets the address, without the port, of an IPv6 call.
    #[inline(always)]
    pub fn set_words(&self, words: [u32; 4]) {
        if self.v6 {
            unsafe {
                write_volatile(&raw mut (*self.raw).user_ip6[0], words[0]);
                write_volatile(&raw mut (*self.raw).user_ip6[1], words[1]);
                write_volatile(&raw mut (*self.raw).user_ip6[2], words[2]);
                write_volatile(&raw mut (*self.raw).user_ip6[3], words[3]);
            }
        }
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        unsafe { write_volatile(&raw mut (*self.raw).user_port, u32::from(port.to_be())) }
    }

    #[inline(always)]
    fn word(&self) -> u32 {
        unsafe { read_volatile(&raw const (*self.raw).user_ip4) }
    }

    #[inline(always)]
    fn words(&self) -> [u32; 4] {
        unsafe {
            [
                read_volatile(&raw const (*self.raw).user_ip6[0]),
                read_volatile(&raw const (*self.raw).user_ip6[1]),
                read_volatile(&raw const (*self.raw).user_ip6[2]),
                read_volatile(&raw const (*self.raw).user_ip6[3]),
            ]
        }
    }
}
