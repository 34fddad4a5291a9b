"""Reference of src/prior/network/diffusers.rs, by diffusers itself.

    python tests/reference/diffusers_unet.py     # needs torch, diffusers, safetensors
"""
from diffusers import UNet2DModel
from record import fill, record

SMALL = dict(
    sample_size=16, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=[16, 32], norm_num_groups=8,
    down_block_types=["DownBlock2D", "AttnDownBlock2D"], up_block_types=["AttnUpBlock2D", "UpBlock2D"],
)
CASES = dict(
    plain=SMALL,
    shifted=dict(
        SMALL, in_channels=2, out_channels=2, layers_per_block=2, block_out_channels=[16, 24], downsample_padding=0,
        attention_head_dim=None, resnet_time_scale_shift="scale_shift", freq_shift=1, flip_sin_to_cos=False,
        center_input_sample=True, mid_block_scale_factor=1.4142135, norm_eps=1e-6, attn_norm_num_groups=4,
    ),
    bare=dict(SMALL, resnet_time_scale_shift="scale_shift"),
    inside=dict(
        SMALL, downsample_type="resnet", upsample_type="resnet", time_embedding_type="fourier", add_attention=False,
        block_out_channels=[16, 16, 32], down_block_types=["AttnDownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"],
        up_block_types=["UpBlock2D", "ResnetUpsampleBlock2D", "AttnUpBlock2D"],
    ),
)


def case(config):
    net = fill(UNet2DModel(**config))
    return config, lambda x, t: net(x, t).sample, (2, config["in_channels"], 16, 16), [37.0, 512.0]


if __name__ == "__main__":
    record(__file__, {name: case(config) for name, config in CASES.items()})
