//! Hand-made nests against plain loops.
#![allow(unsafe_code, clippy::unwrap_used, reason = "tests call kernels and may panic")]

use kiln_ir::DType::{self, Bool, F32, F64, I8, I32, I64, U8, U32};
use kiln_ir::scalar::BinaryFn::{Add, Div, Max, Mul, Sub};
use kiln_ir::scalar::{BinaryFn, CompareFn, Number, UnaryFn};

use kiln_rt::kernels::Level;

use crate::codegen::jit::JitCode;
use crate::codegen::{CodegenError, Texts};
use crate::loops::nest::{Access, Expr, Index, Loop, LoopNest, NestBuilder, Place, Var};

/// Bytes of a buffer, aligned for every type.
#[derive(Clone, Debug, PartialEq)]
struct Bytes {
    words: Vec<u64>,
    len: usize,
}

trait Element: Copy + Default + PartialEq + std::fmt::Debug {
    const DTYPE: DType;
    fn to_bytes(self) -> [u8; 8];
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($ty:ty: $dtype:ident),*) => {
        $(impl Element for $ty {
            const DTYPE: DType = $dtype;
            fn to_bytes(self) -> [u8; 8] {
                let mut all = [0; 8];
                let bytes = self.to_le_bytes();
                all[..bytes.len()].copy_from_slice(&bytes);
                all
            }
            fn from_bytes(bytes: &[u8]) -> $ty {
                <$ty>::from_le_bytes(bytes.try_into().unwrap())
            }
        })*
    };
}

elements!(f32: F32, f64: F64, i8: I8, u8: U8, i32: I32, u32: U32, i64: I64);

/// Elements past the end are marked, to see stores outside.
const MARK: u8 = 0xa5;

impl Bytes {
    fn of<T: Element>(values: &[T]) -> Bytes {
        let size = T::DTYPE.bytes();
        let mut bytes = Bytes::zeros(values.len() * size);
        for (number, value) in values.iter().enumerate() {
            bytes.raw()[number * size..][..size].copy_from_slice(&value.to_bytes()[..size]);
        }
        bytes
    }

    fn zeros(len: usize) -> Bytes {
        let words = vec![u64::from_le_bytes([MARK; 8]); len.div_ceil(8) + 4];
        let mut bytes = Bytes { words, len };
        bytes.raw()[..len].fill(0);
        bytes
    }

    fn raw(&mut self) -> &mut [u8] {
        // SAFETY: every byte of the words is a byte.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 8) }
    }

    fn get<T: Element>(&mut self) -> Vec<T> {
        let len = self.len;
        assert!(self.raw()[len..].iter().all(|byte| *byte == MARK), "written past the end");
        self.raw()[..len].chunks_exact(T::DTYPE.bytes()).map(T::from_bytes).collect()
    }
}

/// With the best that the machine has.
fn compile(nest: &LoopNest) -> Result<JitCode, CodegenError> {
    JitCode::compile(std::slice::from_ref(nest), Texts { clif: true, asm: true })
}

/// With Cranelift alone.
fn compile_narrow(nest: &LoopNest) -> JitCode {
    JitCode::compile_at(std::slice::from_ref(nest), Level::Avx2, Texts { clif: true, asm: true }).unwrap()
}

/// Runs all tiles; returns the status.
fn run(nest: &LoopNest, buffers: &mut [&mut Bytes]) -> [i64; 3] {
    run_with(nest, buffers, &[])
}

fn run_with(nest: &LoopNest, buffers: &mut [&mut Bytes], helpers: &[*const u8]) -> [i64; 3] {
    let code = compile(nest).unwrap();
    for (decl, buffer) in nest.buffers.iter().zip(buffers.iter()) {
        assert_eq!(decl.elements * decl.dtype.bytes(), buffer.len, "{}", decl.name);
    }
    let pointers: Vec<*mut u8> = buffers.iter_mut().map(|buffer| buffer.raw().as_mut_ptr()).collect();
    // SAFETY: sizes were compared; the nests of this file stay in range, which the marks confirm for stores.
    unsafe { code.invoke(0, &pointers, helpers, 0..nest.tiles) }.unwrap()
}

/// `y[i] = f(x[i], ...)` in lanes over `len` elements of one tile.
fn map(inputs: &[DType], output: DType, len: usize, f: impl Fn(&NestBuilder, &[Expr]) -> Expr) -> LoopNest {
    let n = NestBuilder::new("map");
    let places: Vec<Place> =
        inputs.iter().enumerate().map(|(i, dtype)| n.buffer(format!("x{i}"), *dtype, len, Access::Read)).collect();
    let y = n.buffer("y", output, len, Access::Write);
    let i = n.var("i");
    let loads: Vec<Expr> = places.iter().map(|place| n.load(*place, Index::var(i))).collect();
    let value = f(&n, &loads);
    let body = vec![Loop::over(i, len).vector().body(vec![n.store(y, Index::var(i), value)])];
    n.finish(1, body)
}

fn unary<A: Element, B: Element>(values: &[A], f: impl Fn(&NestBuilder, &[Expr]) -> Expr) -> Vec<B> {
    let nest = map(&[A::DTYPE], B::DTYPE, values.len(), f);
    let (mut x, mut y) = (Bytes::of(values), Bytes::zeros(values.len() * B::DTYPE.bytes()));
    run(&nest, &mut [&mut x, &mut y]);
    y.get()
}

fn binary<A: Element, B: Element>(pairs: &[(A, A)], f: impl Fn(&NestBuilder, &[Expr]) -> Expr) -> Vec<B> {
    let nest = map(&[A::DTYPE, A::DTYPE], B::DTYPE, pairs.len(), f);
    let mut a = Bytes::of(&pairs.iter().map(|pair| pair.0).collect::<Vec<_>>());
    let mut b = Bytes::of(&pairs.iter().map(|pair| pair.1).collect::<Vec<_>>());
    let mut y = Bytes::zeros(pairs.len() * B::DTYPE.bytes());
    run(&nest, &mut [&mut a, &mut b, &mut y]);
    y.get()
}

mod checks;
mod functions;
mod halves;
mod integers;
mod nests;
mod rng;
mod streams;
mod wide;
