"""Networks: pure `nn.Module`s that read no file and choose no device."""
