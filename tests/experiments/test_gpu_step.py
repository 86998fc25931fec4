"""What is read from a program compiled for a GPU."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments" / "scale"))
from compile_gpu import products, transposes  # noqa: E402

TEXT = """
%gemm_fusion_dot.1_computation (p: bf16[2048,1024]) -> f32[2048,8] {
  %p = bf16[2048,1024]{1,0} parameter(0)
  %q = f32[1024,8]{1,0} parameter(1)
  %t = bf16[1024,2048]{1,0} transpose(%p), dimensions={1,0}
  ROOT %dot.1 = f32[2048,8]{1,0} dot(%p, %q), lhs_contracting_dims={1}
}

%fused_transpose (a: f32[2048,1024]) -> f32[1024,2048] {
  %a = f32[2048,1024]{1,0} parameter(0)
  %small = f32[4,2]{1,0} transpose(%b), dimensions={1,0}
  ROOT %large = f32[1024,2048]{1,0} transpose(%a), dimensions={1,0}
}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  ROOT %dot.2 = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}
}
"""


def test_products_and_transposes_are_counted():
    assert products(TEXT) == {"bf16 x f32": 1, "f32 x f32": 1}
    # Not the small one, and not what a product's own kernel reads in another order.
    assert transposes(TEXT) == {"f32[1024,2048]": 1}
