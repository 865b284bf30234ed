//! Plans run as compiled code runs them, on numbers that every element type has.

use super::super::half::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use super::super::{Arguments, ContractPlan, ContractSpec, Element, Kernels, Level, Side};
use super::cases::{numbers, out_len, read_len};

/// Operands and vectors of a contraction, as bytes; empty where there are none.
#[derive(Default)]
pub(super) struct Tensors {
    pub(super) left: Vec<u8>,
    pub(super) right: Vec<u8>,
    pub(super) bias: Vec<u8>,
    pub(super) scale: Vec<u8>,
    pub(super) residual: Vec<u8>,
}

impl Tensors {
    /// Numbers for all that `spec` may read.
    pub(super) fn new(spec: &ContractSpec) -> Tensors {
        let [left, right] = operands_of(spec).map(|(numbers, element)| to_bytes(&numbers, element));
        let vector = |seed: u64| to_bytes(&numbers_of(spec.output(), out_len(spec), seed), spec.output());
        Tensors { left, right, bias: vector(3), scale: vector(4), residual: vector(5) }
    }
}

/// Numbers for both operands, and their types.
pub(super) fn operands_of(spec: &ContractSpec) -> [(Vec<f64>, Element); 2] {
    [(Side::Left, &spec.left), (Side::Right, &spec.right)].map(|(side, read)| {
        let element = spec.operand(side);
        (numbers_of(element, read_len(read), 1 + side.code()), element)
    })
}

/// Hands over the arguments of a run of `plan`, with the panels that it asks for and workspaces full of NaN.
pub(super) fn with_arguments<R>(
    plan: &ContractPlan,
    tensors: &Tensors,
    out: &mut [u8],
    body: impl FnOnce(&Arguments) -> R,
) -> R {
    let mut partials = buffer(plan.partial_bytes());
    let mut scratch = buffer(plan.scratch_bytes());
    let mut packed = [Side::Left, Side::Right].map(|side| buffer(plan.packed_bytes(side)));
    let mut operands = [tensors.left.as_ptr(), tensors.right.as_ptr()];
    for (i, side) in [Side::Left, Side::Right].into_iter().enumerate() {
        if plan.packed().side(side) {
            // SAFETY: the buffer has the plan's size and the operand is the spec's.
            unsafe { plan.pack(side, operands[i], packed[i].as_mut_ptr().cast(), (0, plan.pack_tiles(side))) };
            operands[i] = packed[i].as_ptr().cast();
        }
    }
    body(&Arguments {
        left: operands[0],
        right: operands[1],
        out: out.as_mut_ptr(),
        bias: tensors.bias.as_ptr(),
        scale: tensors.scale.as_ptr(),
        residual: tensors.residual.as_ptr(),
        partials: partials.as_mut_ptr().cast(),
        scratch: scratch.as_mut_ptr().cast(),
    })
}

/// Runs `plan` over what `out` holds.
pub(super) fn run(plan: &ContractPlan, tensors: &Tensors, out: &mut [u8]) {
    // SAFETY: tensors and output are the spec's, and the workspaces have the plan's sizes.
    with_arguments(plan, tensors, out, |arguments| unsafe { plan.run(arguments) });
}

/// The output of `plan`, in bytes.
pub(super) fn output(plan: &ContractPlan, spec: &ContractSpec, tensors: &Tensors) -> Vec<u8> {
    let mut out = vec![0; out_len(spec) * spec.output().bytes()];
    run(plan, tensors, &mut out);
    out
}

/// The levels this processor has.
pub(super) fn levels() -> Vec<&'static Kernels> {
    let usable = Level::ALL.into_iter().filter(|level| level.available());
    usable.filter_map(Kernels::for_level).collect()
}

/// 64-byte aligned bytes.
pub(super) fn buffer(bytes: usize) -> Vec<[u64; 8]> {
    // Filled with NaN: nothing may depend on what scratch holds.
    vec![[u64::MAX; 8]; bytes.div_ceil(64)]
}

pub(super) fn to_bytes(values: &[f64], element: Element) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|x| (*x as f32).to_ne_bytes()).collect(),
        Element::F64 => values.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Element::Bf16 => values.iter().flat_map(|x| f32_to_bf16(*x as f32).to_ne_bytes()).collect(),
        Element::F16 => values.iter().flat_map(|x| f32_to_f16(*x as f32).to_ne_bytes()).collect(),
        Element::I8 => values.iter().map(|x| *x as i8 as u8).collect(),
        Element::U8 => values.iter().map(|x| *x as u8).collect(),
        Element::I32 => values.iter().flat_map(|x| (*x as i32).to_ne_bytes()).collect(),
    }
}

/// Numbers that the type has: fractions of 1 for floats, all bytes for integers.
pub(super) fn numbers_of(element: Element, len: usize, seed: u64) -> Vec<f64> {
    let numbers = numbers(len, seed);
    let exact =
        |scale: f64, low: f64, high: f64| numbers.iter().map(|x| (x * scale).round().clamp(low, high)).collect();
    match element {
        Element::F32 | Element::F64 => numbers,
        Element::Bf16 | Element::F16 => from_bytes(&to_bytes(&numbers, element), element),
        Element::I8 => exact(160.0, -128.0, 127.0),
        Element::U8 => numbers.iter().map(|x| (x.abs() * 300.0).round().min(255.0)).collect(),
        Element::I32 => exact(1e2, -1e2, 1e2),
    }
}

pub(super) fn from_bytes(bytes: &[u8], element: Element) -> Vec<f64> {
    match element {
        Element::F32 => bytes.chunks_exact(4).map(|b| f64::from(f32::from_ne_bytes(b.try_into().unwrap()))).collect(),
        Element::F64 => bytes.chunks_exact(8).map(|b| f64::from_ne_bytes(b.try_into().unwrap())).collect(),
        Element::Bf16 => halves(bytes).map(|b| f64::from(bf16_to_f32(b))).collect(),
        Element::F16 => halves(bytes).map(|b| f64::from(f16_to_f32(b))).collect(),
        Element::I8 => bytes.iter().map(|b| f64::from(*b as i8)).collect(),
        Element::U8 => bytes.iter().map(|b| f64::from(*b)).collect(),
        Element::I32 => bytes.chunks_exact(4).map(|b| f64::from(i32::from_ne_bytes(b.try_into().unwrap()))).collect(),
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|b| u16::from_ne_bytes(b.try_into().unwrap()))
}
