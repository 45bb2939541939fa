"""Networks: backbones and their weights, bottleneck and classifier, the discriminator, features, the saved model."""
