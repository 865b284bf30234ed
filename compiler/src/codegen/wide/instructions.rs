//! The vector instructions, as data.

#[cfg(test)]
use super::encode::Lanes;

/// An instruction with an EVEX prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evex {
    pub(super) name: &'static str,
    pub(super) map: u8,
    pub(super) prefix: u8,
    pub(super) wide: bool,
    pub(super) code: u8,
    pub(super) form: Form,
    /// Bytes that a displacement of 8 bit counts in.
    pub(super) unit: i32,
}

/// How an instruction uses its operand fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `to, a, rm`
    Three,
    /// `to, rm`
    Two,
    /// `to, rm` with a general register
    FromGeneral,
    /// `to, rm` with a mask
    FromMask,
    /// `rm, from`
    Store,
    /// `k, a, rm, immediate`
    Compare,
    /// `k, a, rm`
    Test,
    /// `to, a, rm, immediate`
    ThreeImmediate,
    /// `to, rm, immediate`
    TwoImmediate,
    /// `to, rm, immediate` with the destination in the field of `a` and a number in that of `to`
    Shift(u8),
}

macro_rules! instructions {
    ($($id:ident: $name:literal $map:literal $prefix:literal $wide:literal $code:literal $form:expr, $unit:literal;)*) => {
        $(pub(super) const $id: Evex = Evex {
            name: $name, map: $map, prefix: $prefix, wide: $wide == 1, code: $code, form: $form, unit: $unit,
        };)*
        #[cfg(test)]
        pub(super) const ALL: &[Evex] = &[$($id),*];
    };
}

// name, map (1 0F, 2 0F38, 3 0F3A), prefix (0 none, 1 66, 2 F3, 3 F2), W, opcode
instructions! {
    VADDPS: "vaddps" 1 0 0 0x58 Form::Three, 64;
    VSUBPS: "vsubps" 1 0 0 0x5c Form::Three, 64;
    VMULPS: "vmulps" 1 0 0 0x59 Form::Three, 64;
    VDIVPS: "vdivps" 1 0 0 0x5e Form::Three, 64;
    VMINPS: "vminps" 1 0 0 0x5d Form::Three, 64;
    VMAXPS: "vmaxps" 1 0 0 0x5f Form::Three, 64;
    VPADDD: "vpaddd" 1 1 0 0xfe Form::Three, 64;
    VPSUBD: "vpsubd" 1 1 0 0xfa Form::Three, 64;
    VPANDD: "vpandd" 1 1 0 0xdb Form::Three, 64;
    VPORD: "vpord" 1 1 0 0xeb Form::Three, 64;
    VPXORD: "vpxord" 1 1 0 0xef Form::Three, 64;
    VPMULLD: "vpmulld" 2 1 0 0x40 Form::Three, 64;
    VPMINSD: "vpminsd" 2 1 0 0x39 Form::Three, 64;
    VPMINUD: "vpminud" 2 1 0 0x3b Form::Three, 64;
    VPMAXSD: "vpmaxsd" 2 1 0 0x3d Form::Three, 64;
    VPMAXUD: "vpmaxud" 2 1 0 0x3f Form::Three, 64;
    VSCALEFPS: "vscalefps" 2 1 0 0x2c Form::Three, 64;
    VFMADD132PS: "vfmadd132ps" 2 1 0 0x98 Form::Three, 64;
    VFMADD213PS: "vfmadd213ps" 2 1 0 0xa8 Form::Three, 64;
    VFMADD231PS: "vfmadd231ps" 2 1 0 0xb8 Form::Three, 64;
    VBLENDMPS: "vblendmps" 2 1 0 0x65 Form::Three, 64;
    VALIGND: "valignd" 3 1 0 0x03 Form::ThreeImmediate, 64;
    VPERMT2PS: "vpermt2ps" 2 1 0 0x7f Form::Three, 64;
    VEXPANDPS: "vexpandps" 2 1 0 0x88 Form::Two, 4;
    VPBROADCASTD: "vpbroadcastd" 2 1 0 0x7c Form::FromGeneral, 64;
    VPMOVM2D: "vpmovm2d" 2 2 0 0x38 Form::FromMask, 64;
    VSQRTPS: "vsqrtps" 1 0 0 0x51 Form::Two, 64;
    VRNDSCALEPS: "vrndscaleps" 3 1 0 0x08 Form::TwoImmediate, 64;
    VCVTDQ2PS: "vcvtdq2ps" 1 0 0 0x5b Form::Two, 64;
    VCVTUDQ2PS: "vcvtudq2ps" 1 3 0 0x7a Form::Two, 64;
    VCVTTPS2DQ: "vcvttps2dq" 1 2 0 0x5b Form::Two, 64;
    VMOVAPS: "vmovaps" 1 0 0 0x28 Form::Two, 64;
    VMOVUPS: "vmovups" 1 0 0 0x10 Form::Two, 64;
    VMOVUPS_STORE: "vmovups" 1 0 0 0x11 Form::Store, 64;
    VBROADCASTSS: "vbroadcastss" 2 1 0 0x18 Form::Two, 4;
    VPMOVZXBD: "vpmovzxbd" 2 1 0 0x31 Form::Two, 16;
    VPMOVSXBD: "vpmovsxbd" 2 1 0 0x21 Form::Two, 16;
    VPMOVZXWD: "vpmovzxwd" 2 1 0 0x33 Form::Two, 32;
    VPMOVDW: "vpmovdw" 2 2 0 0x33 Form::Store, 32;
    VPMOVDB: "vpmovdb" 2 2 0 0x31 Form::Store, 16;
    VMOVSS_STORE: "vmovss" 1 2 0 0x11 Form::Store, 4;
    VCMPPS: "vcmpps" 1 0 0 0xc2 Form::Compare, 64;
    VPCMPD: "vpcmpd" 3 1 0 0x1f Form::Compare, 64;
    VPCMPUD: "vpcmpud" 3 1 0 0x1e Form::Compare, 64;
    VPTESTMD: "vptestmd" 2 1 0 0x27 Form::Test, 64;
    VPSLLD: "vpslld" 1 1 0 0x72 Form::Shift(6), 64;
    VPSRLD: "vpsrld" 1 1 0 0x72 Form::Shift(2), 64;
    VPSRAD: "vpsrad" 1 1 0 0x72 Form::Shift(4), 64;
}

#[cfg(test)]
impl Evex {
    pub(super) fn immediate_for_test(self) -> Option<u8> {
        let has = matches!(self.form, Form::Compare | Form::ThreeImmediate | Form::TwoImmediate | Form::Shift(_));
        has.then_some(9)
    }

    pub(super) fn writes_mask_for_test(self) -> bool {
        matches!(self.form, Form::Compare | Form::Test)
    }

    pub(super) fn stores_for_test(self) -> bool {
        self.form == Form::Store
    }

    /// The general or mask registers that it reads, if not a vector's.
    pub(super) fn reads_no_vector_for_test(self) -> bool {
        matches!(self.form, Form::FromGeneral | Form::FromMask)
    }

    /// One word may stand for all lanes.
    pub(super) fn takes_words_for_test(self) -> bool {
        self.unit == 64 && !matches!(self.name, "vmovaps" | "vmovups")
    }

    pub(super) fn lanes_for_test(self) -> Vec<Lanes> {
        match self.name {
            "vpmovm2d" => vec![Lanes::All],
            "vblendmps" => vec![Lanes::All, Lanes::Where(3)],
            _ if self.writes_mask_for_test() => vec![Lanes::All, Lanes::Where(1)],
            _ => vec![Lanes::All, Lanes::Where(7), Lanes::OrZero(1)],
        }
    }
}
