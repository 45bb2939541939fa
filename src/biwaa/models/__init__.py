"""Networks: backbone, bottleneck and classifier; the discriminator; features of frozen backbones."""
