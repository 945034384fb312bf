"""Short names for bases: what stands in `config.model.path`, and where it lies."""

NAMES = {
    "base": "ftjax/assets/base",  # made and shipped by the project; see the card in the folder
}
