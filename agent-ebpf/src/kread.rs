//! Reads members of kernel structures. The only place with pointer arithmetic on kernel memory.
//!
//! Offsets come from the running kernel's BTF and are injected before load; a member that this kernel lacks reads as
//! `None`, never as garbage.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use buildtrail_agent_abi::{ABSENT, Offsets};

/// Replaced by the loader; read-only to the programs.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::absent();

/// The address of a kernel object; never dereferenced but through [`Object::read`].
#[derive(Clone, Copy)]
pub struct Object(u64);

impl Object {
    pub const fn at(address: u64) -> Self {
        Self(address)
    }

    /// Where it is, for helpers that take the object itself.
    #[inline(always)]
    pub const fn address(self) -> u64 {
        self.0
    }

    /// Reads `T` at the offset that `member` selects.
    #[inline(always)]
    pub fn read<T>(self, member: impl Fn(&Offsets) -> &u32) -> Option<T> {
        let address = self.address_of(member)?;
        // SAFETY: the helper checks the address and fails instead of faulting.
        unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
    }

    /// Loads `T` at the offset that `member` selects, without the helper: a fraction of its cost.
    ///
    /// # Safety
    ///
    /// The object must come from an argument of a program that is attached by BTF (fentry, `tp_btf`), or from a pointer
    /// loaded so: the verifier then knows its type and checks the access, and the kernel handles a fault.
    #[inline(always)]
    pub unsafe fn load<T: Copy>(self, member: impl Fn(&Offsets) -> &u32) -> Option<T> {
        if cfg!(feature = "before-5-12") {
            // Only there do programs begin with objects whose type the verifier does not know.
            return self.read(member);
        }
        let address = self.address_of(member)?;
        // SAFETY: by contract.
        Some(unsafe { core::ptr::read_volatile(address as *const T) })
    }

    /// Loads a pointer member; `None` when it is null.
    ///
    /// # Safety
    ///
    /// As for [`Object::load`].
    #[inline(always)]
    pub unsafe fn load_pointer(self, member: impl Fn(&Offsets) -> &u32) -> Option<Self> {
        // SAFETY: by contract.
        match unsafe { self.load::<u64>(member) }? {
            0 => None,
            address => Some(Self(address)),
        }
    }

    /// Follows a pointer member; `None` when it is null.
    #[inline(always)]
    pub fn follow(self, member: impl Fn(&Offsets) -> &u32) -> Option<Self> {
        match self.read::<u64>(member)? {
            0 => None,
            address => Some(Self(address)),
        }
    }

    /// The address of a member that is itself a structure or an array.
    #[inline(always)]
    pub fn address_of(self, member: impl Fn(&Offsets) -> &u32) -> Option<u64> {
        // SAFETY: a plain load of an initialised static; volatile because the loader, not the compiler, sets its value.
        let offset = unsafe { core::ptr::read_volatile(member(&OFFSETS)) };
        if offset == ABSENT { None } else { Some(self.0.wrapping_add(u64::from(offset))) }
    }

    /// The `index`th pointer of an array of pointers that begins at this address.
    #[inline(always)]
    pub fn element(self, index: u32) -> Option<Self> {
        let address = self.0.wrapping_add(u64::from(index) * 8);
        // SAFETY: as in `read`.
        match unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()? {
            0 => None,
            address => Some(Self(address)),
        }
    }
}
